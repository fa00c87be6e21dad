// Two pictures of one thing, one over the other, and a slider that uncovers the second.
function render({ model, el }) {
  const stack = document.createElement("div"), below = document.createElement("img"), above = document.createElement("img");
  const slider = document.createElement("input"), both = document.createElement("div"), caption = document.createElement("p");
  el.classList.add("dn-compare", "dn-pictures");
  both.className = "dn-both";
  stack.className = "dn-stack";
  caption.className = "dn-soft";
  Object.assign(slider, { type: "range", min: 0, max: 100, value: 50 });
  slider.setAttribute("aria-label", "How much of the picture as it is covers the heat map, in percent");
  const cut = () => stack.style.setProperty("--cut", `${100 - slider.value}%`);
  const show = () => {
    el.hidden = !model.get("before");
    for (const [picture, name] of [[below, "after"], [above, "before"]]) {
      picture.alt = model.get(`${name}_text`);
      if (model.get(name)) picture.src = model.get(name); else picture.removeAttribute("src");
    }
    caption.textContent = `Left of the line: ${above.alt} Right of it: ${below.alt}`;
  };
  slider.addEventListener("input", cut);
  stack.append(below, above);
  both.append(stack, slider);
  el.append(both, caption);
  model.on("change", show);
  show();
  cut();
  return () => model.off("change", show);
}

export default { render };
