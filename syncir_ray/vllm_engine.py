"""The `vllm` engine of the queries stage: an operator of `ray.data.llm` between two of ours."""

import logging
import os
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from ray.data import Dataset

from syncir_ray.config import SEED, Pool, Queries
from syncir_ray.models.prompt import messages
from syncir_ray.models.weights import fetch, is_local
from syncir_ray.placement import Place
from syncir_ray.stages.queries import from_vllm

# Without a GPU: vLLM in the actor's own process, its cache small (2 cores serve few requests at once).
CPU_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
# Units that one engine works on together, so that it is never without the next request. Ray's own default.
IN_FLIGHT = 8


@dataclass(frozen=True)
class Vllm:
    """Prompts of whole units -> prompt_id, query_text, status, reason, detail."""

    config: Queries
    place: Place
    at_once: int = IN_FLIGHT
    """Units in the engine together."""

    @property
    def pool(self) -> Pool:
        return self.config.pool

    def __call__(self, data: Dataset, units: int) -> Dataset:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # vLLM is imported here too, to look at the model
        from ray.data.llm import build_processor, vLLMEngineProcessorConfig

        logging.getLogger("ray.llm").setLevel(logging.ERROR)
        pool, source = self.config.pool, self.config.model
        environment = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
        engine: dict[str, Any] = {
            "max_model_len": self.config.max_length,
            "max_num_seqs": pool.batch,
            "load_format": "safetensors",  # never a pickle
            "enable_prefix_caching": True,  # the prompt's own words come after the captions; the template before
            "seed": SEED,
            "disable_log_stats": True,
        }
        if is_local(source):
            source = str(fetch(source).absolute())
            environment["HF_HUB_OFFLINE"] = "1"
        elif "@" in source:
            source, engine["revision"] = source.split("@", 1)
        if pool.gpus > 1:
            engine["tensor_parallel_size"] = int(pool.gpus)
        if not self.place.gpu:
            # Ray would set the threads to the CPUs that the actor reserves, which leave room for the feeders
            environment |= CPU_ENVIRONMENT | {"OMP_NUM_THREADS": str(self.place.threads(pool))}
            # float32: rounding then hardly ever turns an answer when a request meets other neighbours
            engine |= {"enforce_eager": True, "dtype": "float32"}
        logging.disable(logging.INFO)  # it calls ray.init() once more, which is told
        try:
            processor = build_processor(
                vLLMEngineProcessorConfig(
                    model_source=source,
                    engine_kwargs=engine,
                    concurrency=(min(pool.min, units), min(pool.max, units)),
                    # A batch is a unit: rows of two units never share one, so a unit comes out whole.
                    batch_size=self.config.rows,
                    max_concurrent_batches=IN_FLIGHT,
                    should_continue_on_error=True,
                    runtime_env={"env_vars": environment},
                    placement_group_config={"bundles": [_bundle(pool.cpus, pool.gpus)]},
                    chat_template_stage={
                        "enabled": True,
                        "num_cpus": self.place.light,
                        "chat_template_kwargs": {"enable_thinking": False},  # Qwen3 and its like would think first
                    },
                    tokenize_stage=False,  # the engine does both itself
                    detokenize_stage=False,
                    log_engine_metrics=False,
                ),
                preprocess=lambda row: {
                    **row,
                    "messages": messages(row["prompt"], self.config.begin),
                    "sampling_params": {"temperature": 0.0, "max_tokens": self.config.max_tokens},
                },
                preprocess_map_kwargs={"num_cpus": self.place.light},
            )
        finally:
            logging.disable(logging.NOTSET)
        return processor(data).map_batches(
            replace(self, at_once=min(IN_FLIGHT, units)).read,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=self.place.light,
        )

    def read(self, table: pa.Table) -> pa.Table:
        """What came out of the engine, read as any engine's answers."""
        config = self.config
        return from_vllm(table.to_pylist(), config.max_tokens, self.at_once, config.begin)


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}
