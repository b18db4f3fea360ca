"""RESULTS.md from scored decoding runs: tables of scores, comparisons, failures and costs."""
