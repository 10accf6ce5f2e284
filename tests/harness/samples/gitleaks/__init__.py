"""The samples of gitleaks' own rules (v8.30.1, MIT, see LICENSE): texts with and without secrets.

`samples.jsonl.gz` has, for each rule, the true and the false positives that its generator
(`cmd/generate/config`) passes to `utils.Validate`. They were written out by that program, with the
seeds 1, 2, 3 … for its generated secrets. The file is compressed, so that scanners for secrets do
not report it.
"""
