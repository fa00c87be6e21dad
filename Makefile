# The commands people repeat. Each uses the environment in .venv; `make install` makes it.
bin = .venv/bin/

install:  ## an environment with everything, and the git hooks
	python3 -m venv .venv
	$(bin)pip install -c constraints.txt -e '.[all]'
	-$(bin)pre-commit install

export:  ## notebooks -> package
	$(bin)nbdev-clean
	$(bin)nbdev-export

readme:  ## nbs/index.ipynb -> README.md
	$(bin)python .ci/readme.py

test:  ## all tests; one notebook: make test only=faces
	$(bin)pytest $(if $(only),-k $(only))

outputs:  ## run the notebooks whose visible cells lack an output, and save it; again for one: .ci/outputs.py --again NAME
	$(bin)python .ci/outputs.py

check: export readme test  ## what to run before a commit

ci:  ## what runs after a push, in an environment of its own
	.ci/run

docs: export  ## the site in _docs by nbdev; needs quarto
	$(bin)nbdev-docs

site:  ## the site in _site, without quarto; look at it: .venv/bin/python -m http.server -d _site
	NO_MKDOCS_2_WARNING=1 $(bin)mkdocs build --strict --quiet

constraints:  ## pin what is installed in .venv
	$(bin)python .ci/constraints.py > constraints.new && mv constraints.new constraints.txt

help:
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):[^#]*## */\1\t/'

.PHONY: install export readme outputs test check ci docs site constraints help
.DEFAULT_GOAL = help
