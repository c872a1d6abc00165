"""Everything about bpf(2): assembler, IR, BTF, maps, programs, links, the verifier's words."""
