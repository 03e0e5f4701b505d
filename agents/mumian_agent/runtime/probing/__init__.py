"""Measures round-trip times to the reflectors of zones and peers, within a budget of packets."""
