"""Speech of espeak-ng (its library as `espeakng-loader` brings it) with the times of its words."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import espeakng_loader
import numpy as np

from steps.prepare.audio import resample

SYNCHRONOUS, PHONEME_EVENTS, UTF8 = 2, 1, 1  # of speak_lib.h
END_OF_LIST, WORD, PHONEME = 0, 1, 7


class _Event(ctypes.Structure):
    """`espeak_EVENT`."""

    class _Id(ctypes.Union):
        _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))

    _fields_ = (
        *(("type", ctypes.c_int), ("identifier", ctypes.c_uint), ("text_position", ctypes.c_int)),
        *(("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int)),
        *(("user", ctypes.c_void_p), ("id", _Id)),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


@dataclass
class Spoken:
    """Samples (time,) in [-1, 1] at `rate`; (word, start, end) in seconds, from its first phone to the next phone."""

    samples: np.ndarray
    rate: int
    words: list[tuple[str, float, float]]

    @property
    def text(self) -> str:
        return " ".join(word for word, *_ in self.words)

    def at(self, rate: int) -> Spoken:
        """The same at another rate."""
        return Spoken(resample(self.samples, self.rate, rate), rate, self.words)


@lru_cache(maxsize=1)
def _library() -> tuple[ctypes.CDLL, int]:
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), PHONEME_EVENTS)
    return library, rate


def speak(text: str, voice: str) -> Spoken:
    """`text` in a voice such as "es": words without digits and hyphens, of which espeak-ng would make several."""
    library, rate = _library()
    assert library.espeak_SetVoiceByName(voice.encode()) == 0
    blocks, events = [], []

    @_CALLBACK
    def collect(samples, count, found) -> int:
        if count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for event in iter(found):
            if event.type == END_OF_LIST:
                break
            events.append((event.type, event.sample / rate, event.id.string if event.type == PHONEME else b""))
        return 0

    library.espeak_SetSynthCallback(collect)
    data = text.encode()
    library.espeak_Synth(data, len(data) + 1, 0, 1, 0, UTF8, None, None)
    samples = np.concatenate(blocks).astype(np.float32) / 32768
    return Spoken(samples, rate, _words(text.replace(",", "").split(), events))


def _words(words: list[str], events: list[tuple[int, float, bytes]]) -> list[tuple[str, float, float]]:
    """Each word from its first phone to the event behind its last; `_` and `_:` are pauses."""
    spans: list[list[float]] = []
    for place, (kind, start, phone) in enumerate(events):
        if kind == WORD:
            spans.append([])
        elif kind == PHONEME and spans and not phone.startswith(b"_"):
            end = next((time for after, time, _ in events[place + 1 :] if after == PHONEME), start)
            spans[-1] += [start, end]
    assert len(spans) == len(words), (words, events)
    return [(word, span[0], span[-1]) for word, span in zip(words, spans, strict=True)]
