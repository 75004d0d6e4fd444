"""`make outage`: the DataHub outage of February 2017, step by step, on a hub with this library."""
