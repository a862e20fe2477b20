"""Words and rules: values and pure functions, standard library only; no clock, no I/O, no await."""
