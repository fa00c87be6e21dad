// A table of files: sorted by the page, filled by the server. Whatever a file says is text here, never markup.
const COLUMNS = [["number", "Picture"], ["name", "File"], ["verdict", "Verdict"], ["rank", "Score"], ["text", "State"]];

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function addRow(body, row, model) {
  const line = make("tr"), cells = Object.fromEntries(["picture", "name", "verdict", "score", "text"].map((o) => [o, make("td", `dn-${o}`)]));
  const button = make("button", "dn-show", "Show"), said = make("span"), bar = make("progress");
  button.type = "button";
  button.addEventListener("click", () => model.send({ kind: "show", number: row.number }));
  cells.text.append(said, bar, button);
  line.append(...Object.values(cells));
  body.append(line);
  return { line, cells, button, said, bar };
}

function fill({ line, cells, button, said, bar }, row, thumb, shown) {
  cells.name.textContent = row.name;
  cells.verdict.textContent = row.verdict;
  cells.verdict.className = `dn-verdict-cell ${row.verdict}`;
  cells.score.textContent = row.score;
  said.textContent = row.text;
  bar.hidden = row.share < 0;
  if (row.share >= 0) bar.value = row.share;
  bar.setAttribute("aria-label", `How far ${row.name} is`);
  button.hidden = !row.ready;
  button.setAttribute("aria-label", `Show what was found in ${row.name}`);
  button.setAttribute("aria-pressed", shown);
  line.classList.toggle("dn-shown", shown);
  if (thumb && !cells.picture.firstChild) {
    const picture = make("img");
    picture.alt = "";
    picture.src = thumb;
    cells.picture.append(picture);
  }
}

function render({ model, el }) {
  const table = make("table", "dn-files"), head = make("thead"), body = make("tbody"), top = make("tr");
  const actions = make("div", "dn-row"), lines = new Map();
  let by = null, falling = false;

  function sort(key) {
    falling = by === key && !falling;
    by = key;
    const rows = [...model.get("rows")].sort((a, b) => (a[key] < b[key] ? -1 : a[key] > b[key] ? 1 : a.number - b.number));
    if (falling) rows.reverse();
    body.append(...rows.map((o) => lines.get(o.number).line));
    for (const cell of top.children) cell.setAttribute("aria-sort", cell.dataset.key === key ? (falling ? "descending" : "ascending") : "none");
  }

  for (const [key, text] of COLUMNS) {
    const cell = make("th"), button = make("button", "dn-sort", text);
    cell.scope = "col";
    cell.dataset.key = key;
    button.type = "button";
    button.addEventListener("click", () => sort(key));
    cell.append(button);
    top.append(cell);
  }
  head.append(top);
  table.append(make("caption", "", "The files you chose"), head, body);
  for (const [what, text] of [["overview", "Download overview report (HTML)"], ["csv", "Download table (CSV)"]]) {
    const button = make("button", "dn-download", text);
    button.type = "button";
    button.addEventListener("click", () => model.send({ kind: "fetch", what }));
    actions.append(button);
  }
  el.append(table, actions);

  function update() {
    const rows = model.get("rows"), thumbs = model.get("thumbs");
    el.hidden = !rows.length;
    actions.hidden = !rows.some((o) => o.ready);
    for (const [number, o] of lines) if (number > rows.length) { o.line.remove(); lines.delete(number); }
    for (const row of rows) {
      if (!lines.has(row.number)) lines.set(row.number, addRow(body, row, model));
      fill(lines.get(row.number), row, thumbs[row.number], row.number === model.get("shown"));
    }
  }

  function save(name, mime, data) {
    const link = make("a");
    link.download = name;
    link.href = URL.createObjectURL(new Blob([data], { type: mime }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  const onMessage = (message, buffers) => {
    if (message.kind === "file") save(message.name, message.mime, buffers[0]);
    if (message.kind === "shown") {
      const results = document.querySelector(".dn-results");
      results.tabIndex = -1;
      results.focus();
      results.scrollIntoView();
    }
  };
  model.on("msg:custom", onMessage);
  const names = ["change:rows", "change:thumbs", "change:shown"];
  for (const name of names) model.on(name, update);
  update();
  return () => { model.off("msg:custom", onMessage); for (const name of names) model.off(name, update); };
}

export default { render };
