"""One settings file for all our programs: their shared code for reading it (flagpost-schemas' extra `settings`).

In: a program's model of its sections, the YAML file, the environment. Out: that model, frozen and checked, or one
`SettingsError` that names every problem (docs/contract.md#settings).

- `section`: the base of every section, and the types of keys;
- `kafka`, `log_section`: the sections that several programs read, with their rules; `logs` configures logging;
- `metrics_in_memory`: keeps metrics independent of the environment; `metrics_page` answers /metrics;
- `load`: reads and checks; `keys`, `sources`, `variables`, `problems`, `secrets` and `urls` are its parts.

Import from the modules: a program that needs a section needs neither YAML nor a logging library.
"""
