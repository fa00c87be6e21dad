// One line that screen readers read out when it changes, and a bar while something is going on.
function render({ model, el }) {
  const line = document.createElement("p");
  const bar = document.createElement("progress");
  line.className = "dn-status";
  line.setAttribute("role", "status");
  line.setAttribute("aria-live", "polite");
  bar.max = 1;
  bar.setAttribute("aria-label", "Progress");
  el.classList.add("dn-status-box");
  el.append(line, bar);
  const show = () => {
    const share = model.get("share");
    line.textContent = model.get("text");
    line.classList.toggle("dn-problem", model.get("problem"));
    bar.hidden = share < 0;
    if (share > 1) bar.removeAttribute("value"); else bar.value = Math.max(share, 0);  // above 1: no one knows how long
  };
  model.on("change", show);
  show();
  return () => model.off("change", show);
}

export default { render };
