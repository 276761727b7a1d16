"""Makes a chart as `helm create` does, packs it, and pushes it over plain HTTP.

usage: helm.py DIRECTORY HOST/PATH
"""

import sys

import helm_python

directory, remote = sys.argv[1:]
chart = helm_python.Chart.create("demo", directory)
chart.close()
package = helm_python.package(f"{directory}/demo", destination=directory)
helm_python.push(package, f"oci://{remote}", plain_http=True)
print(package)
