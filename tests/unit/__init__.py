"""Tests of one module each: no cluster, no hub, no clock but a fake one."""
