"""The protocol of `docs/architecture.md` as a small machine, of which every state is walked."""
