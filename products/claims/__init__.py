"""Sponsors in arrears: what they owe is claimed in signed packs, and what they certify is theirs to pay."""
