"""Language models of the Llama line: a prompt in, a text out. Greedy: the same again for the same."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaForCausalLM

from Wan2GP.engine.families import Cancel, Report
from Wan2GP.engine.language.answers import EachToken, TextModel, greedy
from Wan2GP.engine.language.chat_marks import without_marks
from Wan2GP.engine.request import GenerationRequest
from Wan2GP.errors import EmptyAnswer, InvalidInput

#: longest answer, in tokens
MAX_NEW_TOKENS = 256

#: the published template puts the day into every chat unless it is told another: with it, answers would change daily
_NO_DAY = "26 Jul 2024"
#: the chat of Llama 3, for a tokenizer that brings no template of its own
_PART = "<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"
_ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"


class Language(TextModel):
    """Answers a prompt, in the role that `system_prompt` describes."""

    reads = frozenset({"prompt", "system_prompt"})
    network = LlamaForCausalLM

    @classmethod
    def check(cls, request: GenerationRequest) -> None:
        """Raises InvalidInput for no prompt."""
        super().check(request)
        if not without_marks(request.prompt):
            raise InvalidInput("is missing; say what the model shall write", field="prompt")

    @torch.inference_mode()
    def generate(self, request: GenerationRequest, report: Report, cancel: Cancel) -> str:
        """The answer. Raises GenerationCancelled within a token, EmptyAnswer for one without a word."""
        cancel.raise_if_requested()
        report("encoding", 0, 1)
        ids = self._chat(without_marks(str(request.settings["system_prompt"])), without_marks(request.prompt))
        tokens = torch.tensor([ids], device=self._device)
        report("encoding", 1, 1)
        watch: Any = EachToken(report, cancel, MAX_NEW_TOKENS)
        output = self._model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            generation_config=greedy(self._model, self._padding, MAX_NEW_TOKENS),
            stopping_criteria=[watch],
        )
        answer = str(self._tokenizer.decode(output[0, tokens.shape[1] :], skip_special_tokens=True)).strip()
        if not answer:
            raise EmptyAnswer(f"{self._name} gave an empty answer")
        return answer

    @property
    def _padding(self) -> int | None:
        """Llama has no token of its own for padding; where one chat is answered at a time none is ever used."""
        own: int | None = self._tokenizer.pad_token_id
        return self._tokenizer.eos_token_id if own is None else own

    def _chat(self, system: str, prompt: str) -> list[int]:
        """The ids of a conversation in which a user says the prompt."""
        said = [{"role": "system", "content": system}] if system else []
        said.append({"role": "user", "content": prompt})
        if self._tokenizer.chat_template:
            text = self._tokenizer.apply_chat_template(
                said, tokenize=False, add_generation_prompt=True, date_string=_NO_DAY
            )
        else:
            text = (self._tokenizer.bos_token or "") + "".join(
                _PART.format(role=each["role"], text=each["content"]) for each in said
            )
            text += _ANSWER
        found: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return found
