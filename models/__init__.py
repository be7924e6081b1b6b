"""ecglm.models: an encoder of ECGs, a language model that is asked about them, and how both are trained."""
