"""The simulation that holds the runtime to its guarantees; `ultra chaos` runs it."""
