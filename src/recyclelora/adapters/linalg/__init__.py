"""The linear algebra of initialisations: pivoted QR, SVD, and decompositions kept on disk. No modules of torch."""
