"""The front door: routes that parse, call one function of the engine, and answer."""
