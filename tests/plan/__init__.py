"""Plans: steps, memory, speed, and the command."""
