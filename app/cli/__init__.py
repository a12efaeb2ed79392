"""The console command, ``voxplane``: a module for each group of commands, put together in `app.cli.main`; `app.cli.entry` is
where it begins."""
