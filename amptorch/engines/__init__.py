"""Potentials in other programs: drivers that speak i-PI's protocol, and torch-sim."""
