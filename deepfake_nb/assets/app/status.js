// One line that screen readers read out when it changes, and a bar while something is going on.
// What widgets leave without a name gets one: the page is a landmark, and a slider's handle is called as its label says.
function nameAll() {
  document.querySelector(".dn-app")?.setAttribute("role", "main");
  for (const handle of document.querySelectorAll(".dn-app .noUi-handle:not([aria-label])")) {
    const text = handle.closest(".widget-slider")?.querySelector(".widget-label")?.textContent;
    if (text) handle.setAttribute("aria-label", text);
  }
}

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
  const observer = new MutationObserver(nameAll);
  observer.observe(document.body, { childList: true, subtree: true });
  nameAll();
  model.on("change", show);
  show();
  return () => { model.off("change", show); observer.disconnect(); };
}

export default { render };
