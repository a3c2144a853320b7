"""The paper's metrics (§5), one a file: pure functions and networks of tensors, which losses use too."""
