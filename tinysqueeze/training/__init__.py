"""How a network is trained: recipe, optimisers, the loop, checkpoints, several processes."""
