"""The laboratory: what a fork costs, apart from what the interpreter costs, with error bars.

The map. A module imports from pyweb, and from those listed before it; pyweb imports nothing from
here (tests/test_layers.py):

 numbers      statistics  fit
 tools        build  tools  interpreters  machine  run  limits
 processes    toy  heaps  plainfork
 loads        reports  guards  load  visitors
 servers      usage  servers  faults  phases  timeline  rungs
 measuring    ladder  across  taxes  model  own  throughput
 others       peers  guests  contest  article  race  hold
 comparing    figures  compare
 telling      data  tell  tell_across  tell_compare  tell_peers  session
 drawing      forms  layout  canvas  plots  curves
 page         of_ladder  of_servers  of_model  doubts  page
 commands     climbing  rivals  racing  holding  reporting  comparing  commands  cli  __main__
"""
