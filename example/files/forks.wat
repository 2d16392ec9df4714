;; How many processes there are after so many forks, if each of them forks too.
(module
  (func (export "processes") (param $forks i32) (result i32)
    (i32.shl (i32.const 1) (local.get $forks))))
