"""The query writer without a server: a causal language model of transformers, on a GPU or on plain cores.

torch is imported when a `TransformersWriter` is built.
"""

from pathlib import Path
from typing import Any

from syncir_ray.errors import UserError
from syncir_ray.models.answer import Answer, Failure
from syncir_ray.models.prompt import messages


class TransformersWriter:
    """Greedy answers of one model: bf16 on a GPU, fp32 on the CPU.

    Args:
        folder: the local model folder (`weights.fetch`), with its tokenizer.
        batch: prompts the model sees at once.
        max_tokens: longest answer in tokens, its end included.
        threads: CPU threads of torch, for the whole process.
        begin: what each answer is made to begin with; it is not part of the answer that comes back.

    Raises:
        UserError: the folder does not load, or names no token that ends an answer.
    """

    def __init__(self, folder: Path, batch: int, max_tokens: int, threads: int, begin: str = "") -> None:
        from transformers import AutoModelForCausalLM, GenerationConfig

        from syncir_ray.models.device import Device
        from syncir_ray.models.loading import pretrained, tokenizer

        device = Device(threads)
        self._batch, self._max_tokens, self._device = batch, max_tokens, device.torch
        self._begin = begin
        model, self._tokenizer = pretrained(AutoModelForCausalLM, folder)[0], tokenizer(folder)
        self._tokenizer.padding_side = "left"  # an answer begins where its prompt ends
        self._ends = _ends(model, self._tokenizer)
        if not self._ends:
            raise UserError(f"{folder}: neither the model nor its tokenizer names an end-of-text token")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token_id = self._ends[0]  # padding is masked: any token serves
        # The published settings may want sampling and penalties, and generate() would fill them in again.
        model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._tokenizer.pad_token_id,
        )
        self._context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._model = device.place(model)

    def __call__(self, prompts: list[str]) -> list[Answer | Failure]:
        """n prompts -> n answers, in order.

        A prompt that leaves no room for an answer in the model's context fails alone: 'prompt too long'. The
        prompts of a batch set each other's padding and so the last bits of the logits: the same list of
        prompts gives the same answers, another cut of it may not, where two words are all but equal.
        """
        texts = [self._chat(prompt) for prompt in prompts]
        lengths = [len(ids) for ids in self._encode(texts).input_ids] if texts else []
        answers: dict[int, Answer | Failure] = {}
        fitting = []
        for i, length in enumerate(lengths):
            if self._context is not None and length + self._max_tokens > self._context:
                detail = f"{length} tokens and {self._max_tokens} to answer; the model takes {self._context}"
                answers[i] = Failure("prompt too long", detail)
            else:
                fitting.append(i)
        fitting.sort(key=lambda i: lengths[i])  # alike lengths together: little padding
        for start in range(0, len(fitting), self._batch):
            rows = fitting[start : start + self._batch]
            answers.update(zip(rows, self._generate([texts[i] for i in rows]), strict=True))
        return [answers[i] for i in range(len(prompts))]

    def _chat(self, prompt: str) -> str:
        if self._tokenizer.chat_template is None:
            return f"{prompt}\n{self._begin}" if self._begin else prompt
        # Qwen3 and its like would think first, past any short limit; other templates do not read the flag.
        return self._tokenizer.apply_chat_template(
            messages(prompt, self._begin),
            tokenize=False,
            add_generation_prompt=not self._begin,
            continue_final_message=bool(self._begin),
            enable_thinking=False,
        )

    def _encode(self, texts: list[str], **options: Any) -> Any:
        # A chat template writes the special tokens itself. Causal models know no token types.
        special = self._tokenizer.chat_template is None
        return self._tokenizer(texts, add_special_tokens=special, return_token_type_ids=False, **options)

    def _generate(self, texts: list[str]) -> list[Answer]:
        import torch

        inputs = self._encode(texts, padding=True, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            output = self._model.generate(**inputs)
        written = output[:, inputs.input_ids.shape[1] :].cpu()
        answers = []
        for mask, row in zip(inputs.attention_mask.cpu(), written, strict=True):
            stops = torch.isin(row, torch.tensor(self._ends)).nonzero()
            count = int(stops[0]) + 1 if len(stops) else len(row)
            text = self._tokenizer.decode(row[:count], skip_special_tokens=True)
            answers.append(Answer(text, cut=not len(stops), tokens_in=int(mask.sum()), tokens_out=count))
        return answers


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: models name them in three places, and not always the same ones."""
    found: list[int] = []
    for ids in (
        model.generation_config.eos_token_id,
        model.config.get_text_config().eos_token_id,
        tokenizer.eos_token_id,
    ):
        found += ids if isinstance(ids, list) else [] if ids is None else [ids]
    return list(dict.fromkeys(found))
