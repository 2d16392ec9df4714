"""pyweb: a web server in Python whose unit is the process.

The map. A module imports only from the layers below it, and within its layer only from those
listed before it (tests/test_layers.py):

 0 words         _fast  _together  errors  clock  grammar  journal  config  memory
                 scoreboard  stamps
 1 wire          message  _pyparse  _fastparse  parse  body  render
 2 answers       _mimetable  mime  pages  _fastopen  docroot  conditions  ranges  negotiate
                 listing  static  route
 3 conversation  _pysend  _fastsend  transport  wait  accesslog  service
                 refuse  bodyreader  ledger  _fastcache  kinds  _fastclock  _fastexchange
                 _fastlook  _fastlog  _fastanswer  _fastserve  cache  past  linger  connection
 4 child         parking  child  obituary  _fastfork  _fastzygote  _faststamps  _fastporter
                 verdicts  keeper  gate  shares  _fastshares  handed  _fastlane  lane  worker
                 dispatcher  filler
 5 master        listen  signals  channel  mode  losses  procfs  watchdog  helper  dispatching
                 filling  spares  guests  nursery  fork_mode  repeating  pool_mode  accept  backlog
                 account  introduce  master
 6 server        handover  generation  notify  inherited  pidfile  holdings  spawn  terminal
                 upgrade  supervisor  server
 7 door          status  statustext  watch  cli  __main__
"""

import sys

from ._together import Finder

sys.meta_path.insert(0, Finder(__name__, __path__))

__version__ = "0.1.0"
__all__ = ["__version__"]
