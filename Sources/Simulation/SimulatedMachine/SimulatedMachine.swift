// SimulatedMachine
