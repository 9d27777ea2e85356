module flagpost/benchmarks/receiver

go 1.24
