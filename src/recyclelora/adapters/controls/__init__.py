"""The conventional controls: parts of the backbone itself, networks beside its MLPs, prompts among its tokens."""
