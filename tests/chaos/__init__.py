"""Real clusters, broken in many ways at once while their clients' histories are written down and judged."""
