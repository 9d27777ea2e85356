"""One settings file for every program of ours: what they share of reading it (flagpost-schemas' extra `settings`).

In: a program's model of its sections, the YAML file, the environment. Out: that model, frozen and checked, or one
`SettingsError` that names every problem (CONTRACT section 5).

- `section`: the base of every section, and the types that keys have;
- `kafka`, `log_section`: the sections that several programs read, with their rules; `logs` sets the log up;
- `metrics_in_memory`: what the surroundings may not decide for a program's metrics; `metrics_page` answers /metrics;
- `load`: reads and checks; `keys`, `sources`, `variables`, `problems`, `secrets` and `urls` are what it is made of.

Import from the modules: who needs a section needs neither YAML nor a logging library.
"""
