"""Low-rank networks: equations, simulation, phase portraits and read-outs."""
