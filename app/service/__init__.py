"""The app as a server: queue, models, runner, events, admission, middleware, launch."""
