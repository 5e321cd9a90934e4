"""One small file a tab: its fields and outputs (`build`), and its events (`wire`)."""
