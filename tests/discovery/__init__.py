"""How members that know nothing of each other find each other."""
