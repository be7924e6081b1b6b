"""The stages of training, in the order of the paper: encoder, language, align, instruct, dialogue."""
