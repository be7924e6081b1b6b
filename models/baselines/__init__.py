"""What the model is compared with: trees on measurements, and a linear probe on an encoder that saw no label.

Two more need no training of their own: `bench run --model reference --option blank=true` answers without looking at the
ECG, and `--option head=true` with the encoder's own outputs.
"""
