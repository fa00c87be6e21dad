"""Makes the pages of the site from the notebooks; `mkdocs build` calls it as a hook (see mkdocs.yml).

A notebook becomes a page: its text, its examples with what they showed, and for each exported cell what it offers
(signature, arguments, fields, each with the comment beside it) above the source, which folds. A room becomes a page with
its one sentence, its modules and all their names. Nothing is run: the page says what was saved with the notebook.
"""
import ast, base64, io, json, os, posixpath, re, tokenize
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/deepfake-nb/deepfake_nb/blob/main/"
ROOMS = "see data forge model measure judge learn tell serve".split()  # from the ground up
TEXTS = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "CODE_OF_CONDUCT.md": "conduct.md",
         "models/README.md": "models/index.md", "models/deepfake_nb_default.md": "models/deepfake_nb_default.md"}
GROUND, FIRST = ["core", "extras", "figure"], ["index", "cli", "doctor", "shell"]  # of the notebooks beside the rooms


# ---- which page is which

def bare(stem): return re.sub(r"^\d+_", "", stem)


@cache
def notebooks():
    "Path in the repository -> address in the site, for every notebook."
    found = sorted(o.relative_to(ROOT) for o in (ROOT / "nbs").rglob("*.ipynb") if not any(p.startswith((".", "_")) for p in o.parts[len(ROOT.parts):]))
    place = lambda o: posixpath.join(*o.parent.parts[1:], bare(o.stem) + ".md")
    return {o.as_posix(): place(o) for o in found}


@cache
def addresses():
    "Everything that has a page: path in the repository -> address in the site."
    rooms = {f"deepfake_nb/{o}/__init__.py": f"{o}/index.md" for o in ROOMS}
    return notebooks() | TEXTS | rooms | {"README.md": "index.md", "nbs/tutorials": "tutorials/index.md", "nbs/benchmarks": "benchmarks/index.md"}


def within(folder): return [v for k, v in notebooks().items() if posixpath.dirname(k) == f"nbs/{folder}".rstrip("/")]


def navigation():
    "The whole site in order, as mkdocs wants it."
    beside = {bare(Path(k).stem): v for k, v in notebooks().items() if posixpath.dirname(k) == "nbs"}
    roof = [*FIRST[1:], *(o for o in beside if o not in (*GROUND, *FIRST))]
    rooms = [{"Ground": [beside[o] for o in GROUND]}] + [{o: [f"{o}/index.md", *within(o)]} for o in ROOMS]
    return [{"Start": "index.md"},
            {"Tutorials": ["tutorials/index.md", *within("tutorials")]},
            {"Commands": [beside[o] for o in roof]},
            {"Rooms": ["rooms.md", *rooms]},
            {"Measured": [{"Models": ["models/index.md", "models/deepfake_nb_default.md"]}, {"Benchmarks": ["benchmarks/index.md", *within("benchmarks")]}]},
            {"Project": ["contributing.md", "changelog.md", "conduct.md"]}]


# ---- text

def text_of(value): return "".join(value) if isinstance(value, list) else value


def outside_code(function, markdown):
    "The function on everything but fenced blocks."
    return "".join(o if i % 2 else function(o) for i, o in enumerate(re.split(r"(^```.*?^```[ \t]*$)", markdown, flags=re.M | re.S)))


def relink(markdown, source, address):
    "Links seen from a file of the repository, seen from its page: to other pages where there are some, else to the repository."
    def new(match):
        before, target, after = match.groups()
        if re.match(r"[a-z][a-z0-9+.-]*:|#", target, re.I): return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = addresses().get(path) or (path[4:] if path.startswith("nbs/images/") else None)
        link = posixpath.relpath(page, posixpath.dirname(address) or ".") if page else REPOSITORY + path
        return before + link + ("#" + anchor if anchor else "") + after
    return outside_code(lambda o: re.sub(r"""(\]\(|(?:src|href)=["'])([^)"'\s]+)([)"'])""", new, o), markdown)


def refer(markdown, address):
    "Names of the library in `code` become links to where they are explained."
    def new(match):
        home = homes().get(match[1])
        if not home or home == address: return match[0]
        return f"[{match[0]}]({posixpath.relpath(home, posixpath.dirname(address) or '.')}#{anchor(match[1])})"
    def line(o): return o if o.startswith(("#", "    ", ">")) else re.sub(r"(?<![\[`\w])`([A-Za-z_][\w.]*)`(?![`\]])", new, o)
    return outside_code(lambda o: "\n".join(map(line, o.split("\n"))), markdown)


# ---- code

def anchor(name): return name.replace(".", "-").lower()


def comments(source):
    "Line number -> comment; a comment that stands alone also counts for the line below."
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = token.string.lstrip("# ")
            if token.line.lstrip().startswith("#"): found.setdefault(token.start[0] + 1, token.string.lstrip("# "))
    return found


def arguments(node):
    "(name, type, default, line numbers) of each argument but self."
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    defaults = dict(zip(positional[::-1], a.defaults[::-1])) | {k: v for k, v in zip(a.kwonlyargs, a.kw_defaults) if v}
    starred = [(a.vararg, "*")] * bool(a.vararg) + [(o, "") for o in a.kwonlyargs] + [(a.kwarg, "**")] * bool(a.kwarg)
    for arg, stars in [(o, "") for o in positional] + starred:
        if arg.arg in ("self", "cls") and arg is positional[0]: continue
        kind, default = (ast.unparse(o) if o else "" for o in (arg.annotation, defaults.get(arg)))
        yield stars + arg.arg, re.sub(r"^Annotated\[(\w+),.*", r"\1", kind), default, (arg.lineno, arg.end_lineno)


def cell_text(value): return value.replace("|", "\\|").replace("\n", " ")


def coded(value):  # within `code` a table takes a bar as it is
    return f"`{value}`".replace("\n", " ") if value else ""


def table(rows, head=("", "type", "default", "what")):
    "A table with what stands beside each name."
    if not rows: return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *("| " + " | ".join(o) + " |" for o in rows)]) + "\n"


def signature(node, name):
    "One line, or one for each argument where that is too long."
    given = [f"{n}{f': {t}' if t else ''}{f' = {d}' if t and d else f'={d}' if d else ''}" for n, t, d, _ in arguments(node)]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    short = f"{name}({', '.join(given)}){returns}"
    return short if len(short) <= 88 else f"{name}(\n" + "".join(f"    {o},\n" for o in given) + f"){returns}"


def argument_rows(node, beside):
    "Rows of a table of arguments, and one for what comes back."
    find = lambda lines: next((beside[o] for o in lines if o in beside), "")
    rows = [[coded(n), coded(t), coded(d), cell_text(find(lines))] for n, t, d, lines in arguments(node)]
    if node.returns and (said := beside.get(node.returns.end_lineno)): rows.append(["**returns**", coded(ast.unparse(node.returns)), "", cell_text(said)])
    return rows


def owner(node):
    "The class that a @patch'ed function belongs to, '' for others."
    patched = any(ast.unparse(o) in ("patch", "patch_to") for o in node.decorator_list)
    return ast.unparse(node.args.args[0].annotation) if patched and node.args.args and node.args.args[0].annotation else ""


def offers(source):
    "What a cell gives to users: (name, node)."
    for node in ast.parse(source).body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"): continue
        first = node.args.args[:1] if not isinstance(node, ast.ClassDef) else []
        if isinstance(node, ast.ClassDef) or owner(node): yield (node.name if isinstance(node, ast.ClassDef) else f"{owner(node)}.{node.name}"), node
        elif not (first and first[0].arg == "self"): yield node.name, node


def class_text(name, node, beside):
    "Fields, how it is made, and its methods."
    made = next((o for o in node.body if isinstance(o, ast.FunctionDef) and o.name == "__init__"), None)
    fields = [[coded(o.target.id), coded(ast.unparse(o.annotation)), coded(ast.unparse(o.value)) if o.value else "", cell_text(beside.get(o.end_lineno, beside.get(o.lineno, "")))]
              for o in node.body if isinstance(o, ast.AnnAssign) and isinstance(o.target, ast.Name) and not o.target.id.startswith("_")]
    methods = [[coded(signature(o, o.name) if not any("property" in ast.unparse(d) for d in o.decorator_list) else o.name),
                cell_text(ast.get_docstring(o) or beside.get(o.lineno, beside.get(o.end_lineno, "")))]
               for o in node.body if isinstance(o, ast.FunctionDef) and not o.name.startswith("_")]
    bases = f"({', '.join(ast.unparse(o) for o in node.bases)})" if node.bases else ""
    shown = signature(made, name) if made else f"class {name}{bases}"
    parts = [f"```python\n{shown}\n```", ast.get_docstring(node) or "", table(fields + (argument_rows(made, beside) if made else []))]
    return "\n\n".join(filter(None, [*parts, table([[k.replace("\n", " "), v] for k, v in methods], ("method", "what"))]))


def api(source):
    "What an exported cell offers, then the source, folded."
    beside, found = comments(source), list(offers(source))
    parts = []
    for name, node in found:
        title = f"### `{name}` {{: #{anchor(name)} .api }}"
        if isinstance(node, ast.ClassDef): body = class_text(name, node, beside)
        else: body = "\n\n".join(filter(None, [f"```python\n{signature(node, name)}\n```", ast.get_docstring(node), table(argument_rows(node, beside))]))
        parts.append(f"{title}\n\n{body}")
    fold = f"<details class=\"quote source\" data-search-exclude markdown>\n<summary>{'Source' if found else 'Code'}</summary>"
    return "\n\n".join([*parts, fold, f"```python\n{source.strip()}\n```", "</details>"])


# ---- notebooks

def directives(source): return {re.split(r"[\s:]+", o[2:].strip())[0]: o for o in source.splitlines() if o.startswith("#|")}


def without_directives(source): return "\n".join(o for o in source.splitlines() if not o.startswith("#|")).strip()


def only_imports(source): return all(isinstance(o, (ast.Import, ast.ImportFrom)) for o in ast.parse(source).body)


def shown(outputs, address, number, files):
    "What a cell showed, as HTML and Markdown; pictures become files beside the page."
    parts = []
    for i, o in enumerate(outputs):
        data = {"text/plain": o["text"]} if "text" in o else o.get("data", {})
        data = {k: text_of(v) for k, v in data.items()}
        picture = next((k for k in ("image/png", "image/jpeg", "image/svg+xml") if k in data), None)
        if "text/html" in data:
            body = re.sub(r"<style.*?</style>", "", data["text/html"], flags=re.S)
            parts.append("\n".join(filter(None, map(str.rstrip, body.splitlines()))))
        elif "text/markdown" in data: parts.append(data["text/markdown"])
        elif picture:
            name = f"{address[:-3]}_files/{number}_{i}.{dict(png='png', jpeg='jpg').get(picture[6:], 'svg')}"
            files[name] = data[picture].encode() if "svg" in picture else base64.b64decode(data[picture])
            parts.append(f'<img alt="" src="{posixpath.relpath(name, posixpath.dirname(address) or ".")}">')
        elif data.get("text/plain", "").strip():
            plain = re.sub(r"\x1b\[[0-9;]*m", "", data["text/plain"]).strip("\n")
            parts.append("<pre><code>" + plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") + "</code></pre>")
    if any("text/markdown" in o.get("data", {}) for o in outputs): return "\n\n".join(parts)
    return f'<div class="output">\n{"".join(f"{o}{chr(10)}" for o in parts)}</div>' if parts else ""


def without_badges(markdown):
    "Pictures that other servers draw are for the repository's page: the site asks nobody else."
    return "\n".join(o for o in markdown.splitlines() if not o.startswith("[![")).strip()


def page(path, files):
    "A notebook as Markdown; its pictures are added to `files`."
    address, parts, exports = notebooks()[path], [], not path.startswith(("nbs/tutorials", "nbs/benchmarks"))
    for number, cell in enumerate(json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"]):
        source = text_of(cell["source"])
        said, code = directives(source), without_directives(source)
        if "hide" in said or "default_exp" in said or not code: continue
        if cell["cell_type"] == "markdown": parts.append(refer(relink(without_badges(code), path, address), address))
        elif {"export", "exports", "exporti"} & set(said): parts.append("" if only_imports(code) else refer(api(code), address))
        else:
            if said.get("echo", "").split()[-1:] != ["false"]: parts.append(f"```python\n{code}\n```")
            result = shown(cell.get("outputs", []), address, number, files)
            parts.append(relink(result, path, address) if "text/markdown" in str(cell.get("outputs")) else result)
    return "\n\n".join(filter(None, parts)) + "\n"


@cache
def contents():
    "Address -> [(name, first line of its docstring)] of what each module offers."
    found = {}
    for path, address in notebooks().items():
        if path.startswith(("nbs/tutorials", "nbs/benchmarks")): continue
        cells = [text_of(o["source"]) for o in json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"] if o["cell_type"] == "code"]
        exported = [without_directives(o) for o in cells if {"export", "exports"} & set(directives(o))]
        found[address] = [(name, (ast.get_docstring(node) or "").split("\n")[0]) for o in exported for name, node in offers(o)]
    return found


@cache
def homes():
    "Name -> page that explains it, for names that only one module has; methods too."
    pages = {}
    for address, names in contents().items():
        for name, _ in names: pages.setdefault(name, set()).add(address)
    return {k: next(iter(v)) for k, v in pages.items() if len(v) == 1}


def promise(path):
    "The line below a notebook's title."
    first = next(o for o in json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"] if o["cell_type"] == "markdown")
    return next(o[2:].strip() for o in text_of(first["source"]).splitlines() if o.startswith("> "))


def title(path):
    first = next(o for o in json.loads((ROOT / path).read_text(encoding="utf-8"))["cells"] if o["cell_type"] == "markdown")
    return next(o[2:].strip() for o in text_of(first["source"]).splitlines() if o.startswith("# "))


def purpose(room): return (ROOT / "deepfake_nb" / room / "__init__.py").read_text(encoding="utf-8").strip().strip('"')


def boosted(address, markdown):
    "How much a page counts in the search: who asks for a change wants to know where to make it, and not what changed once."
    boost = {"contributing.md": 4, "changelog.md": .2}.get(address)
    return f"---\nsearch:\n  boost: {boost}\n---\n\n{markdown}" if boost else markdown


def listed(folder, address):
    "A table of the notebooks of a folder with their promises."
    rows = [[f"[{title(k)}]({posixpath.relpath(v, posixpath.dirname(address) or '.')})", promise(k)] for k, v in notebooks().items() if posixpath.dirname(k) == f"nbs/{folder}".rstrip("/")]
    return table(rows, ("", "what it gives"))


def room_page(room):
    "A room: what it is for, its modules, and every name they offer."
    parts = [f"# {room}\n\n> {purpose(room)}", listed(room, f"{room}/index.md")]
    for address in within(room):
        name = posixpath.basename(address)
        rows = [[f"[`{n}`]({name}#{anchor(n)})", cell_text(said)] for n, said in contents()[address]]
        if rows: parts.append(f"## {name[:-3]}\n\n`from deepfake_nb.{room}.{name[:-3]} import ...`\n\n" + table(rows, ("name", "what")))
    return "\n\n".join(parts)


def rooms_page():
    rows = [[f"[**{o}**]({o}/index.md)", purpose(o), ", ".join(f"[{posixpath.basename(p)[:-3]}]({p})" for p in within(o))] for o in ROOMS]
    return ("# The rooms\n\n> Nine rooms, from the ground up: a module stands on its own room and on those above it in this table.\n\n"
            + table(rows, ("room", "what it is for", "modules")))


def pages():
    "Address -> content of every file of the site that is made: Markdown as text, pictures as bytes."
    files = {}
    made = {address: page(path, files) for path, address in notebooks().items()}
    texts = {address: relink((ROOT / path).read_text(encoding="utf-8"), path, address) for path, address in TEXTS.items()}
    made |= {address: boosted(address, refer(text, address)) for address, text in texts.items()}
    made |= {f"{o}/index.md": room_page(o) for o in ROOMS} | {"rooms.md": rooms_page()}
    made["tutorials/index.md"] = "# Tutorials\n\n> What people come for first, each in a few minutes, run on small data whenever the library is tested.\n\n" + listed("tutorials", "tutorials/index.md")
    made["benchmarks/index.md"] = "# Benchmarks\n\n> How fast, and measured how.\n\n" + listed("benchmarks", "benchmarks/index.md")
    return made | files | {"assets/site.css": (ROOT / ".ci" / "pages.css").read_text(encoding="utf-8")}


# ---- what mkdocs calls

def on_config(config):
    config.nav = navigation()
    return config


def on_files(files, config):
    from mkdocs.structure.files import File
    for address, content in pages().items(): files.append(File.generated(config, address, content=content))
    return files
