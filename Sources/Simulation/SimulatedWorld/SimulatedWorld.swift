// SimulatedWorld
