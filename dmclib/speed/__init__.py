"""Speed: one timing protocol, Table 3, and the way from file to label (paper, 4.4)."""
