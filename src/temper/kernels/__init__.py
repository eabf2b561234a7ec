"""Op lists and what runs them: the numpy reference and the C++ executor with its kernels."""
