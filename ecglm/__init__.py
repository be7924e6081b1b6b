"""ecglm: guidelines and measurements into true sentences about ECGs, a model that learns them, a bench that proves it."""
