"""The bpftrace language, compiled to BPF in pure Python."""
