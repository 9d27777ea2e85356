"""Grafana's dashboards for Flagpost, as code.

In: what each dashboard's module says it shows. Out: the JSON files in `helm/flagpost/dashboards/`, which the chart
and compose mount; `make dashboards` writes them anew.
"""
