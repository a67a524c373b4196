@echo off
rem The guide's own watch loop, watch.bat SERVICE (G22): the resident process of the service's application resource. It asks dcstatus, an
rem interval apart, for as long as the answer is 0, and ends with any other.
setlocal EnableExtensions DisableDelayedExpansion
set "gd_script=watch"
set "gd_here=%~dp0"
call "%gd_here%lib-guide.bat" :begin
set "gd_service=%~1"
if not defined gd_service for %%s in (%DCSUP_SERVICES%) do set "gd_service=%%s"
call "%gd_here%lib-guide.bat" :choose %gd_service%
:look
call "%gd_here%lib-guide.bat" :ask
if not "%gd_code%"=="0" exit /b %gd_code%
call "%gd_here%lib-guide.bat" :pause %DCSUP_INTERVAL%
goto :look
