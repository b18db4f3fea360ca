"""Forced alignment: texts as tokens and words, their times in a CTC model's output, files and pictures of these."""
