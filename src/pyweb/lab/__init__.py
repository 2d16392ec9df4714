"""The laboratory: what a fork costs, apart from what the interpreter costs, with error bars.

The map. A module imports from pyweb, and from those listed before it; pyweb imports nothing from
here (tests/test_layers.py):

 numbers      statistics  fit
 tools        build  tools  interpreters  machine  run
 processes    toy  heaps
 loads        reports  guards  load  visitors
 servers      servers  faults  phases  timeline  rungs
 measuring    ladder  across  taxes  model  own  throughput
 comparing    figures  compare
 telling      data  tell  tell_across  tell_compare  session
 commands     climbing  reporting  comparing  commands  cli  __main__
"""
